"""Pictures and pages that a person looks at: `images` (grids, PNG, GIF) and `page` (one run's report.html).

Needs neither JAX nor a trainer: numpy, Pillow and etils. Import the modules by name.
"""
