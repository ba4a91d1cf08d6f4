"""The configuration file of `actorpool up`: read, expanded, and checked as a whole before anything starts."""

from actorpool.configuration.checks import load
from actorpool.configuration.document import InvalidFile, Problem
from actorpool.configuration.settings import Configuration, DashboardSettings, Database, SystemSettings

__all__ = ["Configuration", "DashboardSettings", "Database", "InvalidFile", "Problem", "SystemSettings", "load"]
