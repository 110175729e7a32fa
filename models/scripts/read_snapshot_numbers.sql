-- The number of each bucket's last snapshot.
SELECT bucket, snapshot FROM caller_sketches
