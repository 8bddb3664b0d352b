"""
The drop-in boto3 client, for the services secretsmanager and ssm.

    mixin, client_source        `cached`: a boto3 client that answers from memory, and
                                as the source of what it lacks
    patching                    `patch`: the same for each client that is made
    light_client, light_batches `client`: boto3's shape without boto3
    operations                  which operations are reads, which are writes
    botocore_errors, dates      botocore's exceptions and dates, made without it
    tallies                     the numbers of `stats().clients`
"""
