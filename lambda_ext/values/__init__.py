"""
Secrets and parameters: held in memory, loaded from AWS in few calls.

A read begins at the top; each row calls only rows below it.

    getters, handles, batches   what a program reads with; a hit ends here
    rotation, derived           a credential that is refused; what is made of a value
    store                       the cache, the loader and the sources of this process
    loader                      when a key is loaded, and who waits for it
    calls                       which keys share a request, and on which thread
    sources/                    where the request goes

    keys, cache                 what is remembered, under which key, for how long
    aliases                     which keys may mean one thing
    transforms                  what is made of an answer
    settings                    what the options are for one name
"""
