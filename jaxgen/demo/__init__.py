"""The demo in a browser: which controls a model has, one request to it, its results, and the page, which needs gradio.

`controls` describes what can be chosen for a model, `request` reads what was chosen, `studio` draws it, and `page` is
the only module that imports gradio.
"""
