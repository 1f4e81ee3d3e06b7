"""Evaluation: scores as a table, figures, and the report of a test.

`predictions` writes a score for each image, `figures` draws, `results` puts the numbers of a test in files with all
that is needed to repeat it, and `report` makes the page that shows them. `audit` compares groups of people in a file of
`scores`.
"""
