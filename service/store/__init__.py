"""Where everything is kept: tables, migrations, queries, and the one database that runs them.

`database` is what the rest of the service asks for, whichever database it is. Queries are functions
of a SQLAlchemy `Connection`, the same for all; only the modules named `sqlite` know SQLite. What a
row means is for `service.model` to say, and when it is written for `service.ledger`.
"""
