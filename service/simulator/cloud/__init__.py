"""The Cloud API beside the On-Premises client: Graph's routes, signed webhooks in batches, users.

What it knows and what a test makes it do belongs here, with the control API and the commands for
it. What the client has too (options, faults, deliveries, the record of calls) lies one folder up.

>>> options = Options(port=0, cloud=CloudOptions(app_secret="…", webhook_url="https://…"))
>>> async with Simulator(options) as sim:
...     sim.cloud.write("16505551234", "Hello")
...     sim.cloud.reinstall("16505551234")
...     await sim.cloud.settled()
"""
