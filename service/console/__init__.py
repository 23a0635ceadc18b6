"""The operator's console: pages below `/console/`, made on the server.

Each page works as plain HTML and forms; htmx repaints parts of it as something changes. What it
shows and decides goes by the same queries, commands and rules as the API.
"""
