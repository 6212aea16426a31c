"""Faust, bent: whole fetched lists instead of single messages, and commits that cannot run ahead of delivery.

This package holds every use of Faust's private hooks; nothing else in the project needs to understand it.
`progress` is the rule, `consumer` carries it out inside Faust, `app` puts it in.
"""
