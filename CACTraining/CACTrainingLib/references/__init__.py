"""References: where scans, labels and totals of public data sets and of users' own data are."""
