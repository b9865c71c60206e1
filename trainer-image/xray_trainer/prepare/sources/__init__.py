"""Where X-rays come from: a claim, a web server, an S3 bucket, or a generator. All are read in one pass, from begin to
end; what comes over the network is never kept."""
