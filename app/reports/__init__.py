"""Reports: the merchant's rows as flat tables, for tools that know SQL, JSON and CSV and nothing of coupons."""
