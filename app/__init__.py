"""Flash: an engine for coupons, points and referrals, served as a GraphQL API.

A mutation is a file: `ls app/coupons` is the list of what the product can do with a coupon.
merchants/ members/ coupons/ points/ referrals/ webhooks/ graph/ advisor/
                               the domain: models.py, types.py, queries.py and one file per mutation
schema.py                      every operation of the API, one line each
graphql_*.py operations.py     the edge: requests, sockets and event streams in, refusals and masked faults out
document_costs.py trusted_documents.py
                               what may be asked
wallet_changed.py rings.py     the live wallet, and how processes tell each other of changes
http_protocol.py socket_protocol.py origins.py patience.py open_streams.py
                               what GraphQL doesn't say of connections: sizes, deadlines, whose pages, who has left
authentication.py access.py context.py
                               who is asking, and which rows they may see
ids.py inputs.py scalars.py connections.py queries.py
                               what the nouns share: ids, checks, lists, and queries that belong to none of them
config.py database.py events.py
                               settings, rows, and the record of what happened
remembered.py                  what a process keeps in memory, up to a number
leases.py doorbell.py          jobs that are rows, and how workers are told of them
observed.py logs.py metrics.py traces.py
                               what operators see of an operation
crypto.py master_keys.py       secrets, and where the operator's keys come from
cli.py supervisor.py main.py   the `flash` command, the process tree, the web application
embedded.py running.py preflight.py doctor.py
                               servers of our own, what a command runs against, and what must hold before
reports/ report_files.py       flat rows for BI: pages of the API, and exports
integrity/                     every promise, recomputed from the rows
replay/ stress/                a real retailer's year, and races, over HTTP
pages/                         the pages of development
"""
