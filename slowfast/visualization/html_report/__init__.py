"""report.html: one self-contained page about a run, built from the files in its OUTPUT_DIR."""
