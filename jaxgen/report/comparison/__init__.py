"""Makes the page that compares runs: `runs` reads their folders, `curves` draws their lines, `page` writes the HTML."""
