"""Makes pictures and pages for people: `images` makes grids, PNG and GIF files, and `page` makes a run's report.html.

The room needs neither JAX nor a trainer, only numpy, Pillow and etils. Import the modules by name.
"""
