"""What the service says about itself: log lines, metrics, and points at which tests may kill it.

It knows nothing of callbacks, identities or the database: who counts or logs something calls in
here. What a resource of the API answers about health is in `service.api`.
"""
