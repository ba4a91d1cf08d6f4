"""A pool that is spread over hosts: which host has how many workers, where a call goes, what all figures sum to."""
