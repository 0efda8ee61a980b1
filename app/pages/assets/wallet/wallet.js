// A member's wallet as the page holds it: what was read, and the changes since, each applied to it once.

const CODE = `
  id masked text state allocatedAt expiresAt redeemedAt
  pool { name kind percentOff amountOff { amountMinor currency } giftSku minimumSpend { amountMinor currency } }
`;

export const READ = `
query Wallet($after: String) {
  viewer { merchant { name } member { displayName } }
  wallet {
    id version
    codes(first: 50, after: $after) { edges { node { ${CODE} } } pageInfo { hasNextPage endCursor } }
  }
}`;

export const FOLLOW = `
subscription Changes($after: Int) {
  walletChanged(after: $after) { version event { id type occurredAt } code { ${CODE} } }
}`;

export class Wallet {
  // Takes the answer to READ. Its version was read before its codes: a change that they show already comes again.
  constructor({ viewer, wallet }) {
    this.merchant = viewer.merchant.name;
    this.member = viewer.member.displayName;
    this.version = wallet.version;
    this.codes = new Map();
    this.addOlder(wallet.codes);
  }

  // Adds a page of codes. One that is here already is newer than the page: it has been changed since.
  addOlder(page) {
    for (const { node } of page.edges) {
      if (!this.codes.has(node.id)) this.codes.set(node.id, node);
    }
    this.olderAfter = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  }

  // Applies a change. Returns false for one that was applied before.
  apply({ version, code }) {
    if (version <= this.version) return false;
    this.version = version;
    if (code) this.codes.set(code.id, code);
    return true;
  }

  // The codes that were allocated last come first.
  get newestFirst() {
    return [...this.codes.values()].sort((one, other) => other.allocatedAt.localeCompare(one.allocatedAt));
  }
}
