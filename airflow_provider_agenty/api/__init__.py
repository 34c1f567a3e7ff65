"""
The Jobs API of Agenty: requests, answers and the objects made of them.

This package knows nothing of Airflow but the base of its errors.
"""
