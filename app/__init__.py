"""Flash: an engine for coupons, points and referrals, served as a GraphQL API.

A mutation is a file: `ls app/coupons` is the list of what the product can do with a coupon.
merchants/ members/ coupons/ points/ referrals/ webhooks/ graph/ advisor/
                               the domain: models.py, types.py, queries.py and one file per mutation
schema.py                      every operation of the API, one line each
graphql_*.py operations.py     the edge: requests, sockets and event streams in, refusals and masked faults out
wallet_changed.py rings.py     the live wallet, and how processes tell each other of changes
access.py context.py           who is asking, and which rows they may see
database.py events.py          rows, and the record of what happened
leases.py doorbell.py          jobs that are rows, and how workers are told of them
observed.py logs.py metrics.py traces.py
                               what operators see of an operation
crypto.py master_keys.py       secrets, and where the operator's keys come from
cli.py supervisor.py main.py   the `flash` command, the process tree, the web application
reports/ report_files.py       flat rows for BI: pages of the API, and exports
integrity/                     every promise, recomputed from the rows
replay/ stress/                a real retailer's year, and races, over HTTP
pages/                         the pages of development
"""
