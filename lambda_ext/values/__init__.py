"""
Secrets and parameters: held in memory, loaded from AWS in few calls.

A read begins at the top; each row calls only rows below it.

    getters, handles, batches   what a program reads with; a hit ends here
    rotation, derived           a credential that is refused; objects made of a value
    given                       which values a call that `rotation` protects was given
    store                       the cache, the loader and the sources of this process
    loader                      when a key is loaded, and who waits for it
    calls                       which keys share a request, on which thread it is made,
                                and what its errors mean
    sources/                    where the request goes

    keys, cache                 what is remembered, under which key, for how long
    aliases                     which names and ARNs may stand for one value
    transforms                  how an answer becomes the value that a caller wants
    settings                    what the options are for one name
    counters                    the numbers of `stats()`
    declared                    the protocol of handles, for type checkers only

`cache` and `calls` each hold what could be several files (entries, freshness and the
hits; calls, threads and failures): every module costs a cold start some 0.3 ms.
"""
