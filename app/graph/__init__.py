"""The network of converted referrals: measured, drawn and stored once a day, and read at no cost."""
