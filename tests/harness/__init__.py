"""What the scripts of tests and benches begin with, one subject per file. Standard library only.

Each script puts this folder's parent on its path; that is all it has to say for it.
"""
