"""Routes of the page, one file each."""
