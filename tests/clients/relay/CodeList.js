import { graphql } from "relay-runtime";

export const code = graphql`
  fragment CodeList_code on Code {
    masked
    text
    state
    expiresAt
  }
`;

export const wallet = graphql`
  fragment CodeList_wallet on Wallet
  @refetchable(queryName: "CodeListPageQuery")
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" }) {
    codes(first: $first, after: $after) @connection(key: "CodeList_codes") {
      edges {
        node {
          id
          ...CodeList_code
        }
      }
    }
  }
`;

export const query = graphql`
  query CodeListQuery {
    wallet {
      version
      ...CodeList_wallet
    }
  }
`;

export const claim = graphql`
  mutation CodeListClaimMutation($input: ClaimCodeInput!, $connections: [ID!]!) {
    claimCode(input: $input) {
      ... on ClaimCodeSuccess {
        code @prependNode(connections: $connections, edgeTypeName: "CodeEdge") {
          ...CodeList_code
        }
      }
      ... on Refusal {
        message
      }
    }
  }
`;

export const changes = graphql`
  subscription CodeListChangesSubscription($after: Int) {
    walletChanged(after: $after) {
      version
      wallet {
        id
        version
        points
      }
      code {
        id
        ...CodeList_code
      }
    }
  }
`;
