"""The live deployment: front doors, job executors, task executors and a cluster manager. Every ray import is here.

A request's way, over channels between the processes (``channel``, ``messages``):

    client --HTTP--> front door (``http``, ``gateway``: one ``job`` for each request)
      front door --ask--> job executor: which instance?            (``job_executor``: a dispatch policy)
      front door --request--> task executor --tokens--> front door (``task_server`` around ``engine``)
      task executor --reports--> every job executor
    all of them --signs of life, rows of the event log--> cluster manager --who is there--> all of them

``nodes`` has each process as an object; ``deployment`` and ``launch`` put them onto Ray Serve, ``loopback`` into one
event loop. Whoever fails is replaced by Ray Serve; what it had is done again elsewhere, by the front doors.
"""
