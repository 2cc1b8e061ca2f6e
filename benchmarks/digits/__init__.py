"""Transfer between scikit-learn's digits: what DTNH repairs and costs, in four questions."""
