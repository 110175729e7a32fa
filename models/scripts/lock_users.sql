-- Let nobody add a user until the transaction ends; others read on.
LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE
