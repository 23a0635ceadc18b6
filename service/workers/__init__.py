"""What is done after the 200, in the background: work off the outbox, and regular checks.

A loop, and when it calls whom, belongs here. The rules by which an answer counts don't: they are in
`model`, applied by the commands of `ledger`; and the calls themselves are in `whatsapp`.
"""
