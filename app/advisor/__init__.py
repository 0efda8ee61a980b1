"""The advisor: which offer a merchant lacks, from its own figures; it proposes, and a person decides.

portfolio.py facts.py      what is: figures by pool and segment, from rows
endpoint.py prompt.py      what a model proposes, and whatever can go wrong on the way there
rules.py                   what rules propose, when no model does
checks.py                  what of a proposal may be shown: every figure computed anew, every discount capped
runs.py advise.py          a run: a row that a worker holds, and its way through all of the above
"""
