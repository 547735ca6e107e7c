"""Tables as text, Markdown, LaTeX and data; leaderboards as curves and pages. Nothing here decides what is true, only how it looks."""
