"""
Handwritten digits and their wavelets
=====================================

This example shows the wavelets of :class:`~skscatharm.ImageScattering` and the
coefficients of a digit. It then searches for the best number of scales and orientations
in front of a linear classifier.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import ImageScattering
from skscatharm.transform.morlet import low_pass_filter, morlet_wavelet, orientation

# %%
# A Morlet wavelet is a wave in a Gaussian window. Here are the real parts of three
# scales and four orientations, and the low-pass filter, which averages.

J, L, n = 3, 4, 48


def in_space(spectrum):
    return np.fft.fftshift(np.fft.ifft2(spectrum).real)[8:-8, 8:-8]


fig, axes = plt.subplots(J, L + 1, figsize=(8, 5), layout="constrained")
for j in range(J):
    for t in range(L):
        wavelet = in_space(morlet_wavelet((n, n), j, orientation(t, L), L))
        bound = np.abs(wavelet).max()
        axes[j, t].imshow(wavelet, cmap="RdBu", vmin=-bound, vmax=bound)
        axes[j, t].set_title(f"j = {j}, t = {t}", fontsize="medium")
average = low_pass_filter(n, J)
axes[0, L].imshow(in_space(np.outer(average, average)), cmap="magma")
axes[0, L].set_title("Low-pass filter", fontsize="medium")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
for ax in axes[1:, L]:
    ax.axis("off")
plt.show()

# %%
# The digits of scikit-learn have 8 times 8 pixels, as rows of 64 numbers: ``shape`` has
# their height and width. ``J=1`` leaves a coefficient of a path for every second pixel.
# The pictures show the coefficients of order 1 of a digit, one for each orientation.

X, y = load_digits(return_X_y=True)
scattering = ImageScattering(J=1, L=L, shape=(8, 8)).fit(X)
coefficients = scattering.transform(X[:1]).reshape(1 + L, 4, 4)

fig, axes = plt.subplots(1, 1 + L, figsize=(8, 2), layout="constrained")
axes[0].imshow(X[0].reshape(8, 8), cmap="gray_r")
axes[0].set_title("Image", fontsize="medium")
for t in range(L):
    axes[1 + t].imshow(coefficients[1 + t], cmap="magma", vmin=0)
    axes[1 + t].set_title(f"t = {t}", fontsize="medium")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# J and L are hyperparameters like any others.

model = Pipeline(
    [
        ("scattering", ImageScattering(shape=(8, 8))),
        ("scaler", StandardScaler()),
        ("classifier", RidgeClassifier(alpha=10)),
    ]
)
train, test, y_train, y_test = train_test_split(X, y, random_state=0)
grid = {"scattering__J": [1, 2, 3], "scattering__L": [2, 4, 8]}
search = GridSearchCV(model, grid, cv=5).fit(train, y_train)
scores = search.cv_results_["mean_test_score"].reshape(3, 3)  # by J and L

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for k, n_orientations in enumerate(grid["scattering__L"]):
    errors = 100 * (1 - scores[:, k])
    ax.semilogy(grid["scattering__J"], errors, "o-", label=f"L = {n_orientations}")
ax.set(xlabel="J", ylabel="Error in cross-validation (%)", xticks=[1, 2, 3])
ax.legend()
plt.show()

# %%
# The best model beside the same classifier on the pixels:

pixels = RidgeClassifier(alpha=10).fit(train, y_train)
print(search.best_params_)
print(f"Scattering: {search.score(test, y_test):.1%} correct")
print(f"Pixels:     {pixels.score(test, y_test):.1%} correct")
