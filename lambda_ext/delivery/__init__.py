"""
Delivery over a network, for metric sinks and log destinations alike.

    queue                       a bounded queue with retries and a deadline
    receiver                    one HTTP endpoint: address, keys, answers
    otlp_common, protobuf       what metrics, logs and spans by OTLP share
    life                        what a snapshot, a restore and a fork do to both
"""
