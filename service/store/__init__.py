"""Where everything is kept: tables, migrations, and the queries of every database we run on."""
