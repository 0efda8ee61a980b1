// A member's wallet as the page holds it: what was read, and the changes since, each applied to it once.

const CODE = `
  id masked text state allocatedAt expiresAt redeemedAt
  pool { name kind percentOff amountOff { amountMinor currency } giftSku minimumSpend { amountMinor currency } }
`;
const ENTRY = "id amount reason reference createdAt";
const CODES = `edges { node { ${CODE} } } pageInfo { hasNextPage endCursor }`;
const ENTRIES = `edges { node { ${ENTRY} } } pageInfo { hasNextPage endCursor }`;

export const READ = `
query Wallet {
  viewer { merchant { name } member { displayName } }
  wallet { id version points spendablePoints codes(first: 50) { ${CODES} } entries(first: 5) { ${ENTRIES} } }
}`;

export const VERSION = "query Version { wallet { version } }";

export const OLDER_CODES = `
query OlderCodes($after: String) { wallet { codes(first: 50, after: $after) { ${CODES} } } }`;

export const OLDER_ENTRIES = `
query OlderEntries($after: String) { wallet { entries(first: 20, after: $after) { ${ENTRIES} } } }`;

export const FOLLOW = `
subscription Changes($after: Int) {
  walletChanged(after: $after) {
    version wallet { points spendablePoints } event { id type occurredAt points } code { ${CODE} } entry { ${ENTRY} }
  }
}`;

export class Wallet {
  // Takes the answer to READ. Its version and points were read before its lists: a change that those show already
  // comes again.
  constructor({ viewer, wallet }) {
    this.merchant = viewer.merchant.name;
    this.member = viewer.member.displayName;
    this.version = wallet.version;
    this.points = wallet.points;
    this.spendable = wallet.spendablePoints;
    this.codes = new Map();
    this.entries = new Map();
    this.addOlderCodes(wallet.codes);
    this.addOlderEntries(wallet.entries);
  }

  // Adds a page of codes. One that is here already is newer than the page: it has been changed since.
  addOlderCodes(page) {
    for (const { node } of page.edges) {
      if (!this.codes.has(node.id)) this.codes.set(node.id, node);
    }
    this.codesAfter = after(page);
  }

  // Adds a page of entries, which never change.
  addOlderEntries(page) {
    for (const { node } of page.edges) this.entries.set(node.id, node);
    this.entriesAfter = after(page);
  }

  // Applies a change. Returns false for one that was applied before.
  apply({ version, wallet, code, entry }) {
    if (version <= this.version) return false;
    this.version = version;
    this.points = wallet.points;
    this.spendable = wallet.spendablePoints;
    if (code) this.codes.set(code.id, code);
    if (entry) this.entries.set(entry.id, entry);
    return true;
  }

  // The codes that were allocated last come first.
  get newestCodes() {
    return newestFirst(this.codes, "allocatedAt");
  }

  get newestEntries() {
    return newestFirst(this.entries, "createdAt");
  }
}

function after({ pageInfo }) {
  return pageInfo.hasNextPage ? pageInfo.endCursor : null;
}

function newestFirst(nodes, instant) {
  return [...nodes.values()].sort((one, other) => other[instant].localeCompare(one[instant]));
}
