"""
The life of an execution environment: its phases, its clock, its end.

    phases                      the phases, and the functions called in each
    hooks                       the public decorators that add such functions
    clock                       the time; what a freeze changes
    deadline                    the thread that calls TIMEOUT
    deferred                    work after the response: `defer`, `after_response`
    signals, shutdown           how SIGTERM is seen; what is done then, and at exit
    extension                   the registration for which Lambda sends SIGTERM
    runtime_api                 HTTP with Lambda's Runtime API
    runtime_client              Lambda's own client of it (awslambdaric)
    snapstart, otel             SnapStart; OpenTelemetry's providers
    current, invocations        the invocation under way; what hooks are told of it
    undecorated                 invocations of a handler that is not decorated
    event_loop, bounded         for handlers and hooks in asyncio; hooks with a budget
    process                     locks, forks and resets of process-wide state
    real_threads                threads, also where gevent replaced them
"""
