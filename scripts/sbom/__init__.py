"""Lists what an installation holds (a software bill of materials), in SPDX."""
