"""Any set of run and study folders as one self-contained page: question, verdicts, charts, runs, methods, commands.

`content` gathers what the folders hold, `rows` their runs, `verdicts` judges, `panels` and `charts` place the points,
`methods` puts configs into words, `page` writes the HTML from the templates.
"""
