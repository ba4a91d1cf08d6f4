"""The dashboard: one read-only page that says what needs attention, and the figures behind it.

It runs in a process of its own: a supervised child of the node (`keeper`), or `actorpool dashboard NAME`. That process
is a client like any other: its crash, its load or a hostile browser never touch a pool.

    node <- sight <- collector <- server <- browser
                  <- metrics

`sight` is what is known at one moment, in plain values; `collector` looks at most once a second, and only while
somebody watches; `server` has the table of routes; `guard` refuses what no browser of an operator sends.
"""
