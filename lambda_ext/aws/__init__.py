"""
The two ways to AWS: a light client of our own, and boto3.

    transport                   which of the two serves a service
    light, boto                 the two transports
    retries, waiting, errors    what both share: attempts, pauses, what codes mean
    regions                     the region and the endpoint
    credentials, container_credentials, signing
                                the keys, and signatures with them
    connections, http1, tls, native
                                the light client's connections, down to C modules
"""
