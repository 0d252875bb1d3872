"""Mutations of the program, each of which the fast tests beside its module must notice."""
