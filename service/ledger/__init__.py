"""The only writer: it gathers commands, commits them together, and answers each once committed.

`ledger` is the group commit, `unit_of_work` what one batch has loaded and changed; the other
modules are the commands. A command says what it needs and calls the rules of `service.model`; the
statements are in `service.store`.
"""
