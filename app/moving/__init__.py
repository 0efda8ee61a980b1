"""Moving in: files of another system become members, balances, codes and purchases."""
