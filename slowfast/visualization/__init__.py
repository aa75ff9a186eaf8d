"""Result files, tables, plots, contact sheets and annotated videos."""
