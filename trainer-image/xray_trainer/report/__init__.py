"""What a run leaves for people to look at: report.html, one page that needs no network, its figures as report.json, and its
plots as PNG beside them. `write.write_report` is what `train` calls."""
