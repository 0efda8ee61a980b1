"""Flash: an engine for coupons, points and referrals, served as a GraphQL API.

A mutation is a file: `ls app/coupons` lists what the product can do with a coupon.

schema.py                every operation of the API, one line each
cli.py                   the `flash` command
config.py errors.py ids.py

web/                     what speaks HTTP: requests, sockets, event streams, and the limits on each
operate/                 what runs the engine: processes, embedded servers, the operator's commands
moving/                  files of another system: members, balances, codes, purchases
api/                     what operations share: the edge of a mutation, inputs, lists, roles
storage/                 the database, events, rings, leases, encryption
telemetry/               logs, metrics, traces

merchants/ members/ wallets/ coupons/ people/ orders/ points/ referrals/ jobs/ webhooks/ graph/ segments/ advisor/
reports/
                         the nouns: models.py (tables), rows.py (columns and what reads them), types.py (GraphQL),
                         queries.py (root fields), one file per mutation, pure rules apart

integrity/               every promise, recomputed from the rows
replay/ stress/          a real retailer's year, and races, over HTTP
pages/                   the pages of development
"""
