"""The REST API: one module a resource, the table of routes, and what the resources share.

A resource reads the request, asks the ledger, the store or a worker, and serializes the answer. It
holds no rule of the domain (`service.model`) and no SQL (`service.store`).
"""
