"""The configuration file of `actorpool up`: read, expanded, and checked as a whole before anything starts."""

from actorpool.configuration.checks import load
from actorpool.configuration.document import InvalidFile, Problem
from actorpool.configuration.settings import Configuration, DashboardSettings, SystemSettings

__all__ = ["Configuration", "DashboardSettings", "InvalidFile", "Problem", "SystemSettings", "load"]
