"""The configuration file of `actorpool up`: read, expanded, and checked as a whole before anything starts."""

from actorpool.configuration.checks import load
from actorpool.configuration.document import InvalidFile, Problem
from actorpool.configuration.settings import ClusterSettings, Configuration, DashboardSettings, SystemSettings

__all__ = ["ClusterSettings", "Configuration", "DashboardSettings", "InvalidFile", "Problem", "SystemSettings", "load"]
