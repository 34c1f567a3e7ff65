"""
What Agenty's Jobs API says, and how it is asked.

Of Airflow this package knows no more than the base of its errors. Everything that belongs to the API alone is here: the
settings of a connection, the session and its authentication, the retry policy, paging, the job and its
states, the log entries, and the one delicate call, starting a job.
"""
