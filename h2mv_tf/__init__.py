"""H2MV in TensorFlow: a hybrid model of the land water cycle.

Baghirov et al. (2025), Geosci. Model Dev. 18, 2921-2943,
doi 10.5194/gmd-18-2921-2025.
"""

__version__ = "0.1.0"
